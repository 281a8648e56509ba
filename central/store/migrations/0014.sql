-- More names of the field: circuit breaker, reverted, total.
ALTER TABLE nodes RENAME COLUMN left_alone TO breaker_open;
UPDATE nodes SET monitor = replace(replace(replace(replace(monitor, '"fell":', '"reverted":'), '"fell_op":', '"reverted_op":'),
  '"fell_at":', '"reverted_at":'), '"fell_times":', '"reverted_times":') WHERE monitor LIKE '%"fell%';
UPDATE agents SET rack = json_remove(json_set(rack, '$.open_breakers', rack -> '$.dead_bmc'), '$.dead_bmc') WHERE rack LIKE '%"dead_bmc":%';
UPDATE agents SET rack = json_remove(json_set(rack, '$.brake.total', rack -> '$.brake.of'), '$.brake.of') WHERE rack LIKE '%"of":%';
