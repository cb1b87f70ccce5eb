//! Compiles the `.proto` files with protox (no `protoc` needed), to prost messages and proto3's JSON mapping.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 7] = ["resources", "request", "shard", "completion", "fleet", "explain", "dead"];

/// What is sent to the frontend. A vector is read strictly wherever it stands, in answers too: an operator's own resource
/// is a named one there, and a field that is new in it must reach clients no later than frontends.
const SUBMITTED: [&str; 7] = [
    ".forecastle.v1.SubmitRequest",
    ".forecastle.v1.Input",
    ".forecastle.v1.ItemList",
    ".forecastle.v1.Sla",
    ".forecastle.v1.SetShares",
    ".forecastle.v1.ShareSetting",
    ".forecastle.v1.ResourceVector",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("proto");
    println!("cargo:rerun-if-changed=proto");
    let files: Vec<_> = FILES.iter().map(|name| root.join(format!("forecastle/v1/{name}.proto"))).collect();
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let encoded = descriptors.encode_to_vec();
    std::fs::write(out.join("descriptors.bin"), &encoded)?;

    prost_build::Config::new()
        .compile_well_known_types()
        .extern_path(".google.protobuf", "::pbjson_types")
        .btree_map(["."])
        .bytes(["."])
        .compile_fds(descriptors)?;
    // What clients read ignores fields that they do not know, so that an old one works with a newer frontend. What a
    // producer submits is read strictly: a field that is ignored there is a mistake that nobody hears of.
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map([".forecastle"])
        .exclude(SUBMITTED)
        .ignore_unknown_fields()
        .build(&[".forecastle.v1"])?;
    let strict = out.join("strict");
    std::fs::create_dir_all(&strict)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .btree_map([".forecastle"])
        .out_dir(&strict)
        .build(&SUBMITTED)?;
    Ok(())
}
