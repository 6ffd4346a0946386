-- RQ has forgotten these RQ jobs: an index that is used for years must not grow for years.
-- ARGV: RQ job ids. Returns {'ok'}.

local CROWD = 100000
for i = 3, #ARGV do
  redis.call('HDEL', RQ, ARGV[i])
end
if redis.call('HEXISTS', JOB, 'rq_crowd') == 1 then
  redis.call('HSET', JOB, 'rq_crowd', math.max(CROWD, 2 * redis.call('HLEN', RQ)))
end
return {'ok'}
