//! How the static program is linked.

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "this is how Cargo and a build script speak to each other"
)]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let has = |name: &str, word: &str| {
        let set = std::env::var(name).unwrap_or_default();
        set.split(',').any(|one| one == word)
    };
    if has("CARGO_CFG_TARGET_FEATURE", "crt-static") && has("CARGO_CFG_TARGET_ENV", "gnu") {
        // The addresses that a position-independent program puts into itself at its start are a list of 24 bytes each, half a
        // megabyte that stays in memory; packed they are a bit each. glibc reads that from 2.36 on (Debian 12); linked
        // with an older one the program could not start at all.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
