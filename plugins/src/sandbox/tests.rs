//! Patterns against Lua's own matcher.
