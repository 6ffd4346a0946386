-- A child failed under the fail-fast policy: the first failure and the request, in one step, so that the root cause is
-- never one of its consequences: once a request exists, what fails fails because of it.
-- ARGV: FirstFailure JSON, body JSON, default plan JSON; plan JSON, seal and '1' as for `request`.
-- Returns 'created' or 'exists' with the request; 'missing' when the record has lost the agent, which has to say that it
-- is there; 'unsigned' or 'plan' as `request` does.

wholly()
local failure, body, default_plan, plan, seal, own = unpack(ARGV, 3)
local known = redis.call('HEXISTS', AGENTS, cjson.decode(failure).agent_id) == 1

if fenced() then
  if not known then
    remind()
    touch()
  end
  return request(known and 'exists' or 'missing')
end
local why = unfit(seal, own, plan, default_plan)
if why then
  return request(why)
end
redis.call('HSET', JOB, 'first_failure', failure, 'first_failure_us', int(NOW_US))
event('child.failed', failure)
record_request(body, plan ~= '' and plan or declared_plan(default_plan), seal)
if not known then
  forgot()
end
settle()
touch()
return request(known and 'created' or 'missing')
