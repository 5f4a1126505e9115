//! What a plugin may use up. Each one is an option `plugins.*` of the server; a plugin may lower its own by `limits = { … }`.

/// Bounds of the plugins of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instructions of one call. What C does for a script without an instruction counts too, by its size (`sandbox`).
    pub instructions: u64,
    /// Instructions of loading one plugin, and of its `on_load`, `on_save` and each self-test.
    pub load_instructions: u64,
    /// Milliseconds of one call. Looked at each thousand instructions, more often while there are large strings.
    pub millis: u64,
    /// The same for loading, `on_load`, `on_save` and self-tests.
    pub load_millis: u64,
    /// Bytes of memory of one VM: all plugins of a shard together.
    pub memory_bytes: usize,
    /// Bytes of memory of one plugin of one shard.
    pub plugin_memory_bytes: usize,
    /// Bytes that one call may ask for, whether it gives them back or not: building what is thrown away costs time.
    pub allocated_bytes: u64,
    /// Bytes of one string or one part of a table.
    pub block_bytes: usize,
    /// Messages that one call may make.
    pub results: usize,
    /// Bytes of all messages that one call makes: payload, topic and properties.
    pub result_bytes: usize,
    /// Entries of one plugin's `postroad.store` on one shard.
    pub store_entries: usize,
    /// Bytes of its keys and values.
    pub store_bytes: usize,
    /// Names of counters and gauges of one plugin.
    pub metric_names: usize,
    /// Lines of log of one plugin in one second; what is more is counted.
    pub log_lines: u32,
    /// Failures in a row after which a plugin is not called any more on that shard, until the next reload.
    pub quarantine_after: u32,
    /// Levels of what `postroad.json` and `postroad.msgpack` read and write, and of what `on_save` hands over.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instructions: 200_000,
            load_instructions: 20_000_000,
            millis: 20,
            load_millis: 1_000,
            memory_bytes: 32 << 20,
            plugin_memory_bytes: 8 << 20,
            allocated_bytes: 64 << 20,
            block_bytes: 4 << 20,
            results: 64,
            result_bytes: 4 << 20,
            store_entries: 10_000,
            store_bytes: 4 << 20,
            metric_names: 64,
            log_lines: 100,
            quarantine_after: 20,
            depth: 32,
        }
    }
}
