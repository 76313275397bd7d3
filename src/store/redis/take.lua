-- Decides on the demands of one request: all are granted and counted, or none is.
--
-- KEYS[i]  the counter of demand i
-- ARGV[1]  now in microseconds since 1970, or empty: the time of this server
-- ARGV[2]  1: count without asking, for what was granted elsewhere
-- then for each demand:
--   r shadow step part ceiling part capacity part denominator   a rate; step -1 if it can never be granted
--   c shadow cost count soft start start start end              a quota of a calendar: four ends of three cycles
--   w shadow cost count soft slice                              a quota of a rolling time
--
-- Answers {now, granted, {state}, …} with each state as it was before: {micros, part} of a rate, {used} of a quota, and
-- when that is refused and rolling also its slots and their counts.
--
-- Numbers are doubles: every one here is a whole number below 2^53, so nothing is rounded. What is decided here is
-- decided once more in Rust from the states, for the outcomes; both do the same arithmetic.

local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = tonumber(ARGV[1])
end
local force = ARGV[2] == '1'
local at = 2

local function text()
  at = at + 1
  return ARGV[at]
end

local function number()
  return tonumber(text())
end

local function whole(value)
  return string.format('%.0f', value)
end

-- At least a second more than needed: a counter that is gone says as much as one whose time is over.
local function lifetime(micros)
  return whole(math.ceil(micros / 1000) + 1000)
end

local function beyond(micros, part, limit, limit_part)
  return micros > limit or (micros == limit and part > limit_part)
end

-- How far ahead of now a rate's counter is, as whole microseconds and a part of the next.
local function open_rate(key, ceiling, ceiling_part, denominator)
  local tat, part = string.match(redis.call('GET', key) or '', '^(%d+) (%d+)$')
  tat, part = tonumber(tat or 0), tonumber(part or 0)
  local counter = {ahead = 0, part = 0, was = {tat, part}}
  if tat >= now then
    counter.ahead, counter.part = tat - now, math.min(part, denominator)
    if counter.part == denominator then
      counter.ahead, counter.part = counter.ahead + 1, 0
    end
  end
  -- Further ahead than it can be: the limit was raised, or a clock set back.
  if beyond(counter.ahead, counter.part, ceiling, ceiling_part) then
    counter.ahead, counter.part, counter.cut = ceiling, ceiling_part, true
  end
  return counter
end

local function save_rate(key, counter)
  redis.call('SET', key, whole(now + counter.ahead) .. ' ' .. whole(counter.part), 'PX', lifetime(counter.ahead))
end

local function rate(key, shadow, counters)
  local step, step_part, ceiling, ceiling_part = number(), number(), number(), number()
  local capacity, capacity_part, denominator = number(), number(), number()
  local counter = counters[key] or open_rate(key, ceiling, ceiling_part, denominator)
  counters[key] = counter
  local demand = {key = key, shadow = shadow, counter = counter}
  function demand.decide()
    local after, part = counter.ahead + step, counter.part + step_part
    if part >= denominator then
      after, part = after + 1, part - denominator
    end
    demand.granted = force or (step >= 0 and not beyond(after, part, capacity, capacity_part))
    if demand.granted then
      counter.ahead, counter.part = after, part
    end
  end
  function demand.count()
    save_rate(key, counter)
  end
  -- Nothing is counted, but what can not be is put right: else the limit would refuse until that time has come.
  local ahead, part = counter.ahead, counter.part
  function demand.leave()
    if counter.cut then
      save_rate(key, {ahead = ahead, part = part})
    end
  end
  return demand
end

local function calendar()
  local one, two, three, four = number(), number(), number(), number()
  if now < two then
    return one, one, two
  elseif now < three then
    return two, two, three
  end
  return three, three, four
end

local function rolling()
  local slice = number()
  local slot = now - math.fmod(now, slice)
  return math.max(slot - 64 * slice, 0), slot, slot + 65 * slice
end

local function open_quota(key, since, last)
  local counter = {used = 0, slots = {}, old = {}}
  local saved = redis.call('HGETALL', key)
  for i = 1, #saved, 2 do
    local start, counted = tonumber(saved[i]), tonumber(saved[i + 1])
    if start < since then
      table.insert(counter.old, saved[i])
    elseif start < last then
      counter.used = counter.used + counted
      table.insert(counter.slots, start)
      table.insert(counter.slots, counted)
    end
  end
  counter.was = {counter.used}
  return counter
end

local function quota(key, shadow, counters, window)
  local cost, count, soft = number(), number(), text() == '1'
  local since, slot, last = window()
  local counter = counters[key] or open_quota(key, since, last)
  counters[key] = counter
  local demand = {key = key, shadow = shadow, counter = counter}
  function demand.decide()
    demand.granted = force or soft or counter.used + cost <= count
    if demand.granted then
      counter.used = counter.used + cost
    elseif window == rolling and #counter.was == 1 then
      counter.was = {counter.was[1], unpack(counter.slots)}
    end
  end
  function demand.count()
    if #counter.old > 0 then
      redis.call('HDEL', key, unpack(counter.old))
      counter.old = {}
    end
    redis.call('HINCRBY', key, whole(slot), whole(cost))
    redis.call('PEXPIRE', key, lifetime(last - now))
  end
  function demand.leave()
  end
  return demand
end

local demands, counters = {}, {}
for i = 1, #KEYS do
  local kind, shadow = text(), text() == '1'
  if kind == 'r' then
    demands[i] = rate(KEYS[i], shadow, counters)
  elseif kind == 'c' then
    demands[i] = quota(KEYS[i], shadow, counters, calendar)
  else
    demands[i] = quota(KEYS[i], shadow, counters, rolling)
  end
end

-- First what can refuse the request, then what is only watched.
local all = true
for _, shadow in ipairs({false, true}) do
  for _, demand in ipairs(demands) do
    if demand.shadow == shadow then
      demand.decide()
      all = all and (demand.granted or shadow)
    end
  end
end

local answer = {now, all and 1 or 0}
for i, demand in ipairs(demands) do
  if not all then
    demand.leave()
  elseif demand.granted then
    demand.count()
  end
  answer[i + 2] = demand.counter.was
end
return answer
