//! What is generated from the definition is what the repository holds.

use std::path::{Path, PathBuf};

use prost::Message;

const PROTO: &str = "postroad/v1/postroad.proto";

/// Remakes what differs when it is asked to: `POSTROAD_BLESS=1 cargo test -p postroad-proto generated`.
fn assert_generated(file: &str, made: &[u8]) {
    let path = root().join("src/generated").join(file);
    let there = std::fs::read(&path).unwrap_or_default();
    if std::env::var_os("POSTROAD_BLESS").is_some() {
        if there != made {
            std::fs::write(&path, made).expect("the repository is writable");
        }
        return;
    }
    assert!(there == made, "{file} is not what {PROTO} says; remake it with POSTROAD_BLESS=1");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn generated_files_are_those_of_the_repository() {
    let mut compiler = protox::Compiler::new([root()]).expect("the folder is there");
    compiler.include_source_info(true).open_file(root().join(PROTO)).expect("a sound definition");
    let definition = compiler.file_descriptor_set();
    let folder = tempfile::tempdir().expect("a temporary directory");
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .build_transport(false)
        .out_dir(folder.path())
        .compile_fds(definition.clone())
        .expect("it compiles");
    let code = std::fs::read(folder.path().join("postroad.v1.rs")).expect("named after the package");
    assert_generated("postroad.v1.rs", &code);
    assert_generated("postroad.v1.bin", &definition.encode_to_vec());
}
