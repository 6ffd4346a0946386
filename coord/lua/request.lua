-- Somebody wants the job stopped. Set if absent: the first request stays the request.
-- ARGV: body JSON, default plan JSON, plan JSON ('' = what the job's agents declared, else the default),
--       '1' to fence a job that nobody ever joined.
-- Returns {'unknown'}, or 'created' or 'exists' with the request.

local body, default_plan, plan, fence_unknown = unpack(ARGV, 3)

if redis.call('EXISTS', JOB) == 0 and fence_unknown ~= '1' then
  return {'unknown'}
end
if fenced() then
  return request('exists')
end
record_request(body, plan ~= '' and plan or declared_plan(default_plan))
settle()
touch()
return request('created')
