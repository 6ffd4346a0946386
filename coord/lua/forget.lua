-- Jobs that were looked for in vain are dropped from the index, but for those that somebody put there just now.
-- KEYS: the index alone. ARGV: microseconds for which a job is new, job ids. Returns {'ok'}.

local INDEX = KEYS[1]
local new_us = ARGV[3]

for i = 4, #ARGV do
  local joined_us = redis.call('ZSCORE', INDEX, ARGV[i])
  if joined_us and tonumber(joined_us) < NOW_US - new_us then
    redis.call('ZREM', INDEX, ARGV[i])
  end
end
return {'ok'}
