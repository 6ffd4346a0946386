-- Somebody wants the job stopped. Set if absent: the first request stays the request.
-- ARGV: body JSON, plan JSON ('' = what the job's agents declared), '1' to fence a job that nobody ever joined,
--       plan JSON for a job of which no agent declared one.
-- Returns {'unknown'}, or 'created' or 'exists' with the request.

local body, plan, fence_unknown, default_plan = unpack(ARGV, 3)

if redis.call('EXISTS', JOB) == 0 and fence_unknown ~= '1' then
  return {'unknown'}
end
if fenced() then
  return request('exists')
end
redis.call('HSETNX', JOB, 'created_us', int(NOW_US))
if plan == '' and redis.call('HEXISTS', JOB, 'grace_s') == 0 then
  plan = default_plan
end
record_request(body, plan)
settle()
touch()
return request('created')
