-- RQ has forgotten these RQ jobs: an index that is used for years must not grow for years.
-- ARGV: RQ job ids. Returns {'ok'}.

for i = 3, #ARGV do
  redis.call('HDEL', RQ, ARGV[i])
end
return {'ok'}
