-- A survivor found an agent's lease ended: its host is lost. If a failure there was to stop the job, this is the first
-- failure, and it makes the request in the same step. Looked at again, since several survivors find it, and since it may
-- have come back.
-- ARGV: agent id, FirstFailure JSON, body JSON ('' = the job goes on without it), default plan JSON; plan JSON, seal and
--       '1' as for `request`.
-- Returns {'none'} when nothing is to be done, {'lost'}, or 'created' or 'exists' with the request; 'unsigned' or 'plan'
-- as `request` does.

wholly()
local agent_id, failure, body, default_plan, plan, seal, own = unpack(ARGV, 3)

if fenced() then
  return request('exists')
end
if silent_since_us() then
  have_patience()
end
local lease_us = redis.call('ZSCORE', LEASES, agent_id)
if not lease_us or tonumber(lease_us) > NOW_US or patient() then
  return {'none'}
end
local why = body ~= '' and unfit(seal, own, plan, default_plan)
if why then
  return request(why)
end
if body == '' then
  give_up(agent_id) -- and nobody else: what their loss means, their own policy says
else
  lose(int(NOW_US))
  redis.call('HSET', JOB, 'first_failure', failure, 'first_failure_us', int(NOW_US))
  record_request(body, plan ~= '' and plan or declared_plan(default_plan), seal)
  settle()
end
touch()
return body == '' and {'lost'} or request('created')
