//! The integration tests: the real program beside real PostgreSQL servers, real `wget`, BusyBox and
//! `curl`. One binary, one file for each concern. Tests of a row of the fault battery carry its
//! number in their names (`fault_37_…`); `docs/reference/faults.md` lists them.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests make files, read the environment and print as they like"
)]

mod archive_command;
mod azure;
mod base_backup;
mod beside_production;
mod browser;
mod check;
mod cli;
mod contract;
mod copy;
mod crash_campaign;
mod documents;
mod encryption;
mod faults_azure;
mod faults_content;
mod faults_crash;
mod faults_disk;
mod faults_http;
mod faults_identity;
mod faults_memory;
mod faults_s3;
mod faults_s3_access;
mod faults_s3_truth;
mod faults_swift;
mod file_list;
mod gcs;
mod hand_over;
mod image;
mod kindness;
mod kubernetes;
mod left_timelines;
mod lost_mount;
mod lost_wal;
mod main_job;
mod memory_bound;
mod monitoring;
mod neighbours;
mod notices;
mod offline;
mod other_sites;
mod package;
mod page;
mod patroni;
mod power_loss;
mod promises;
mod random_timelines;
mod recovery_away;
mod recovery_command;
mod rehearse;
mod requests;
mod restore_delta;
mod restore_verb;
mod restored_settings;
mod retention;
mod rewind;
mod rights;
mod s3;
mod s3_stage;
mod s3_store;
mod secrets;
mod secrets_s3;
mod segment_sizes;
mod several_archives;
mod several_sidecars;
mod slots;
mod some_files;
mod standby;
mod store_faults;
mod store_outages;
mod store_trust;
mod support;
mod swift;
mod swift_stage;
mod swift_store;
mod targets;
mod timelines;
mod tls;
mod verify;
mod wal_e_defects;
mod wal_e_face;
mod wal_e_golden;
mod wal_e_real;
mod wal_e_statuses;
mod wal_g_golden;
mod wal_g_real;
mod wale_golden;
mod walrus;
