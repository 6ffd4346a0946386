-- RQ jobs of the job are about to be enqueued, or were met; refused when the job is fenced.
-- ARGV: RQ job id, queue name, of each.
-- Returns {'created'} when nobody knew the job before, {'enlisted'}, or 'fenced' with the request that forbids it.

if fenced() then
  return request('fenced')
end
local created = redis.call('HSETNX', JOB, 'created_us', int(NOW_US))
for i = 3, #ARGV, 2 do
  redis.call('HSET', RQ, ARGV[i], ARGV[i + 1])
end
touch()
return {created == 1 and 'created' or 'enlisted'}
