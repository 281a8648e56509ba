-- Addresses were kept as agents named them. Those that central may dial come with the next hellos.
UPDATE agents SET address = '';
