//! The stage of the tests on Swift.

use wale_testkit::swift::SwiftServer;
use wale_testkit::{Sandbox, SidecarOptions};

use crate::s3_stage::StoreStage;

/// The stage on Swift, behind the fault proxy. The sidecar logs in as the role that the guide has.
pub(crate) type SwiftStage = StoreStage<SwiftServer>;

impl SwiftStage {
    /// With settings of the test's own; none, and a skip that is counted, where Swift is not installed.
    pub(crate) fn start(
        name: &str,
        settings: impl FnOnce(SidecarOptions) -> SidecarOptions,
    ) -> Option<Self> {
        if !SwiftServer::is_installed() {
            wale_testkit::skip(name, "Swift is not installed: run scripts/setup.sh");
            return None;
        }
        let server = |sandbox: &Sandbox| SwiftServer::start(sandbox).expect("it is installed");
        Some(Self::with(name, server, settings))
    }
}
