-- Somebody wants the job stopped. Set if absent: the first request stays the request.
-- ARGV: body JSON, default plan JSON, plan JSON ('' = what the job's agents declared, else the default),
--       '1' to fence a job that nobody ever joined, '1' when the job has RQ jobs that the record does not know.
-- Returns {'unknown'}, or 'created' or 'exists' with the request.

wholly()
local body, default_plan, plan, fence_unknown, rq = unpack(ARGV, 3)

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
record_request(body, plan ~= '' and plan or declared_plan(default_plan), rq == '1')
settle()
touch()
return request('created')
