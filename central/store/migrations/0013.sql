-- Texts for people are called message.
ALTER TABLE ops RENAME COLUMN says TO message;
ALTER TABLE schedules RENAME COLUMN last_says TO last_message;
UPDATE nodes SET monitor = json_remove(json_set(monitor, '$.waits_message', monitor ->> '$.waits_says'), '$.waits_says')
  WHERE monitor LIKE '%"waits_says":%';
UPDATE agents SET rack = json_remove(json_set(rack, '$.brake.message', rack ->> '$.brake.says'), '$.brake.says')
  WHERE rack LIKE '%"says":%';
