-- RQ jobs of the job are about to be enqueued, or were met; refused when the job is fenced.
-- ARGV: RQ job id, queue name, of each.
-- Returns {'created'} when nobody knew the job before, {'enlisted'}, {'crowded'} when the caller should see which of them
-- RQ has forgotten, or 'fenced' with the request that forbids it.

wholly()
local CROWD = 100000

if fenced() then
  return request('fenced')
end
local created = redis.call('HSETNX', JOB, 'created_us', int(NOW_US))
for i = 3, #ARGV, 2 do
  redis.call('HSET', RQ, ARGV[i], ARGV[i + 1])
end
touch()
-- Who comes next is not told, too; `delist` says when it is time again.
if redis.call('HLEN', RQ) > tonumber(redis.call('HGET', JOB, 'rq_crowd') or CROWD) then
  redis.call('HSET', JOB, 'rq_crowd', 2 * redis.call('HLEN', RQ))
  return {'crowded'}
end
return {created == 1 and 'created' or 'enlisted'}
