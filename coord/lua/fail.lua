-- A child failed under the fail-fast policy: the first failure and the request, in one step, so that the root cause is
-- never one of its consequences: once a request exists, what fails fails because of it.
-- ARGV: FirstFailure JSON, body JSON, default plan JSON.
-- Returns 'created' or 'exists' with the request.

wholly()
local failure, body, default_plan = unpack(ARGV, 3)

if fenced() then
  return request('exists')
end
redis.call('HSET', JOB, 'first_failure', failure, 'first_failure_us', int(NOW_US))
event('child.failed', failure)
record_request(body, declared_plan(default_plan))
settle()
touch()
return request('created')
