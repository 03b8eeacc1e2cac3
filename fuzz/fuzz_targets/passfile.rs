//! libpq's password file: a password comes out of a line that says so, and of no other.

#![no_main]

use std::os::unix::fs::PermissionsExt;

use libfuzzer_sys::fuzz_target;
// The room's module finds it at the root of its crate.
use wale_cluster::read_bounded_text;

#[path = "stand_ins/scratch.rs"]
mod scratch;

// The room keeps the module to itself; of its neighbours it needs the type of a secret.
mod options {
    pub(crate) use wale_cluster::Secret;
}
#[path = "../../crates/wale-cluster/src/control/passfile.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod passfile;

fuzz_target!(|data: &[u8]| {
    let path = scratch::folder().join("pgpass");
    std::fs::write(&path, data).expect("the file is written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    for (host, database) in [("localhost", "postgres"), ("/tmp", "a:b"), ("a\\b", "*")] {
        match passfile::look_up(&path, host, 5432, database, "postgres") {
            passfile::Lookup::Found(secret) => {
                assert!(secret.expose().len() <= data.len());
                assert!(data.iter().filter(|byte| **byte == b':').count() >= 4);
            }
            passfile::Lookup::NoFile => panic!("the file is there"),
            passfile::Lookup::Unusable(why) => assert!(!why.contains('\n'), "{why}"),
        }
    }
});
