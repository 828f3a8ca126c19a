"""``convbench compare``: an engine against other libraries, the processor's peak and a copy's bandwidth."""
