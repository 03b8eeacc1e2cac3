//! Recovery settings: how a restored cluster gets its WAL, where it stops, and what it becomes.
//!
//! | | PostgreSQL 10, 11 | from 12 on |
//! |---|---|---|
//! | settings | `recovery.conf` | a marked block at the end of `postgresql.auto.conf`, which is read last |
//! | recover, then serve | `recovery.conf` alone | `recovery.signal` |
//! | stay a standby | `standby_mode = 'on'` in it | `standby.signal` |
//!
//! From 12 on the settings outlive the promotion, so they lie in the next base backup too: whatever came
//! with a backup is stripped before new ones are written, and every setting that is not used is set to
//! what PostgreSQL has without it, because an included file may hold an old one. The order within the block matters: PostgreSQL
//! complains about two targets while it reads, so the empty ones come before the one that is meant.
//!
//! Refuses to know: where the archive is, and which settings of wale's the values come from.

mod addition;
mod apply;
mod configuration;
mod copy;
mod direct;
mod files;
mod includes;
mod mistake;
mod mode;
mod names;
mod preload;
mod rehearsal;
mod restore_command;
mod running_target;
mod settled;
mod stand_in;
mod target_time;

pub use addition::{check_value, parse_addition, read_addition};
pub use apply::{Applied, RecoverySettings, apply, check_command, steering, written_files};
pub use configuration::{FILE_BYTES_MAX, READ_FILES, quote, strip};
pub use copy::{ConfigurationSet, own_configuration, read_configuration};
pub use direct::{SETTINGS_FILE, direct_restore_command, shell_word, write_settings};
pub use includes::{Mended, mend as mend_includes};
pub use mistake::SettingMistake;
pub use mode::RecoveryMode;
pub use preload::{TIMESCALEDB_WORKERS, libraries};
pub(crate) use rehearsal::in_kilobytes;
pub use rehearsal::{Rehearsal, SHARED_BUFFERS, SHARED_BUFFERS_MIN};
pub use restore_command::{
    AUTHORIZATION_FILE, RestoreClient, RestoreCommand, RestoreEndpoint, RestoreTls, STOP_STATUS,
    renew_authorization, restore_command, write_authorization,
};
pub use running_target::surely_has_target;
pub use settled::{WrittenSetting, block_settings, has_ended, is_written, only_ours, take_back};
pub use stand_in::{is_stood_in_for, missing_configuration, write_missing_configuration};
pub use target_time::instant;
