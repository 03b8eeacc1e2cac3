//! The targets see what the rooms show to fuzz targets only, under `cargo check`, too. cargo-fuzz tells it every crate.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=fuzzing");
}
