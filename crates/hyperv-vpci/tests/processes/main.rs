//! Two processes that communicate over rings in shared memory with eventfds. One of them is killed
//! at random points.
//!
//! The program starts itself as the other process. The child opens the shared memory, a file,
//! through its parent's descriptor in `/proc`; the eventfds are the child's standard input and
//! output.

#[cfg(target_os = "linux")]
#[path = "../it/gic.rs"]
#[expect(dead_code, reason = "other tests use the remaining items")]
mod gic;
#[cfg(target_os = "linux")]
mod shared;
#[cfg(target_os = "linux")]
mod trials;

use libtest_mimic::{Arguments, Trial};

fn main() {
    #[cfg(target_os = "linux")]
    if let Some(role) = shared::role() {
        trials::child(&role);
        return;
    }
    #[cfg(target_os = "linux")]
    let trials = vec![
        Trial::test("a_killed_guest_costs_its_own_bus_alone", || {
            trials::killed_guests();
            Ok(())
        }),
        Trial::test("a_killed_host_costs_no_vector", || {
            trials::killed_hosts();
            Ok(())
        }),
    ];
    #[cfg(not(target_os = "linux"))]
    let trials: Vec<Trial> = Vec::new();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
