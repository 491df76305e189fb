//! Senders sharing a KVM pin.

use super::explore_all;
use crate::kvm::Pulses;
use crate::sync::{AtomicBool, SeqCst};
use core::convert::Infallible;
use shuttle::sync::Arc;
use shuttle::sync::atomic::AtomicU32;
use shuttle::thread;

/// A pin that counts edges like an I/O APIC.
#[derive(Default)]
struct Pin {
    is_high: AtomicBool,
    edges: AtomicU32,
}

#[test]
fn concurrent_pulses_each_produce_an_edge() {
    fn scenario() {
        let (pulses, pin) = (Arc::new(Pulses::default()), Arc::new(Pin::default()));
        let senders = [1, 2].map(|_| {
            let (pulses, pin) = (pulses.clone(), pin.clone());
            let drive = move |level| {
                if level && !pin.is_high.load(SeqCst) {
                    pin.edges.fetch_add(1, SeqCst);
                }
                pin.is_high.store(level, SeqCst);
                Ok::<_, Infallible>(())
            };
            thread::spawn(move || pulses.pulse(drive))
        });
        for sender in senders {
            assert_eq!(sender.join().unwrap(), Ok(()));
        }
        assert_eq!(pin.edges.load(SeqCst), 2);
    }
    explore_all(2, scenario);
}
