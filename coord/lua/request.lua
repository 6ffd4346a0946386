-- Somebody wants the job stopped. Set if absent: the first request stays the request.
-- ARGV: body JSON, default plan JSON, plan JSON ('' = what the job's agents declared, else the default),
--       '1' to fence a job that nobody ever joined, '1' when the job has RQ jobs that the record does not know,
--       seal ('' = unsigned), '1' when the signed plan is what the signer takes for the job's own.
-- Returns {'unknown'}, or 'created' or 'exists' with the request; 'unsigned' or 'plan' when it can't be recorded so.

wholly()
local body, default_plan, plan, fence_unknown, rq, seal, own = unpack(ARGV, 3)

if redis.call('EXISTS', JOB) == 0 and fence_unknown ~= '1' then
  return {'unknown'}
end
if fenced() then
  if rq == '1' and not redis.call('HGET', JOB, 'rq') then
    sweep_rq()
    broadcast()
    touch()
  end
  return request('exists')
end
local why = unfit(seal, own, plan, default_plan)
if why then
  return request(why)
end
record_request(body, plan ~= '' and plan or declared_plan(default_plan), seal, rq == '1')
settle()
touch()
return request('created')
