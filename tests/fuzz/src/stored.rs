//! Records of the log.

use postroad_storage::record::{decode, encode};

/// Decodes records off the front until one is refused. What decodes keeps its meaning when it is written again, and what
/// is refused leaves the input where it was.
pub fn check(mut input: &[u8]) {
    while !input.is_empty() {
        let before = input;
        let Ok(record) = decode(&mut input) else {
            assert_eq!(input, before, "a refused record must not be consumed");
            return;
        };
        assert!(input.len() < before.len(), "a record takes bytes");
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        let mut rest = &bytes[..];
        assert_eq!(decode(&mut rest).as_ref(), Ok(&record));
        assert!(rest.is_empty(), "a record reads all that it wrote");
        // No shorter beginning of it may pass for a record: a cut log would be read wrongly.
        let mut cut = &bytes[..bytes.len() - 1];
        assert!(decode(&mut cut).is_err(), "{record:?} without its last byte");
    }
}
