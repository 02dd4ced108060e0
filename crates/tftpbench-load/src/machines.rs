//! What a worker keeps of its machines beside their clients. It must never send.

use std::collections::VecDeque;
use std::sync::Arc;

use tftpbench_net::Socket;

use crate::boot_figures::BootRecords;
use crate::boots::BootPlan;
use crate::config::{DALLYING_MAX, LoadConfig};

/// What a worker keeps of its machines beside their clients.
pub(crate) struct Machines {
    pub(crate) plan: Arc<BootPlan>,
    pub(crate) records: BootRecords,
    /// The run is over: what ends now was interrupted.
    pub(crate) is_over: bool,
    /// Sockets of requests that did not complete, so that their ports do not come again soon.
    retired: VecDeque<Socket>,
}

impl Machines {
    pub(crate) fn new(plan: &Arc<BootPlan>, config: &LoadConfig) -> Machines {
        let records = BootRecords::new(config);
        Machines { plan: plan.clone(), records, is_over: false, retired: VecDeque::new() }
    }

    /// Keeps the port of a request that did not complete for a while.
    pub(crate) fn retire(&mut self, socket: Socket) {
        self.retired.push_back(socket);
        if self.retired.len() > DALLYING_MAX {
            self.retired.pop_front();
        }
    }
}
