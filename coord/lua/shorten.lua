-- The request gets more urgent. The caller computed the shortened plan from revision `rev`; if another was faster,
-- nothing changes and the caller gets the newer one to start from.
-- ARGV: rev, plan JSON, detail JSON (who, why), seal.
-- Returns 'shortened' or 'exists' with the request; 'unsigned' or 'plan' as `request` does.

wholly()
local rev, plan, detail, seal = unpack(ARGV, 3)

if redis.call('HGET', JOB, 'rev') ~= rev then
  return request('exists')
end
local why = unfit(seal)
if why then
  return request(why)
end
redis.call('HSET', JOB, 'plan', plan, 'seal', seal)
redis.call('HINCRBY', JOB, 'rev', 1)
event('shutdown.shortened', detail)
broadcast()
touch()
return request('shortened')
