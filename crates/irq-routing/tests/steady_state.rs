//! Memory cost of signals and changes. A test program of its own: it counts allocations.

use irq_routing::msix::{MsixTable, Signalled};
use irq_routing::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing, Sender};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, Gsi, Level, Line, MsiMessage, SetLine, SignalMsi};
use peak_alloc::PeakAlloc;
use std::sync::Arc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// A controller that takes everything and remembers nothing.
struct Taker;

impl SetLine for Taker {
    fn set_line(&self, _: Line, _: Level) -> Delivery {
        Delivery::Pending
    }

    fn pulse(&self, _: Line) -> Delivery {
        Delivery::Pending
    }
}

impl SignalMsi<DeviceId> for Taker {
    fn signal_msi(&self, _: DeviceId, _: MsiMessage) -> Delivery {
        Delivery::Pending
    }
}

fn message(gsi: u32, event: u32) -> Change {
    let message = MsiMessage { address: 0x0809_0040, data: event };
    Change::Set(Gsi::new(gsi), Route::to_its(DeviceId::new(1), message))
}

/// Bytes that were allocated at once at most while `run` ran. It is the least of some rounds, as
/// the test's own harness allocates in some of them.
fn least_peak_of(mut run: impl FnMut()) -> usize {
    std::iter::repeat_with(|| peak_of(&mut run)).take(10).min().unwrap_or(usize::MAX)
}

fn peak_of(run: impl FnOnce()) -> usize {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    run();
    ALLOCATED.peak_usage() - before
}

// One test: the allocator counts for all threads.
#[test]
fn steady_state_allocates_nothing() {
    let inputs = Inputs::new(Arc::new(Taker)).with_its(Arc::new(Taker));
    let space = GsiSpace::new(GsiSpace::MAX).with_first_allocated(0);
    let router = Router::new(space, inputs).unwrap();

    let sparse = peak_of(|| {
        router.commit(&[message(3, 0), message(1_000_000, 0)]).unwrap();
    });
    assert!((1..0x4000).contains(&sparse), "{sparse} bytes for two routes");

    let pin = Change::Set(Gsi::new(4), Route::Pin(Pin::new(1).unwrap()));
    let steady = least_peak_of(|| {
        for event in 0..100 {
            router.commit(&[message(3, event), pin, message(1_000_000, event)]).unwrap();
            for gsi in [3, 4, 1_000_000] {
                assert_eq!(router.signal(Gsi::new(gsi)), Ok(Delivery::Pending));
            }
            router.set_level(Gsi::new(4), Level::High).unwrap();
            let given = router.allocate().unwrap();
            router.release(&[given]).unwrap();
        }
    });
    assert_eq!(steady, 0, "bytes");

    let table = MsixTable::new(2, Sender::Device(DeviceId::new(1)), Arc::new(router)).unwrap();
    table.write_control(Control::new().with_enable(true));
    table.write(0x1c, &0u32.to_le_bytes());
    let vectors = least_peak_of(|| {
        assert_eq!(table.signal(0), Signalled::Held);
        assert_eq!(table.signal(1), Signalled::Sent(Delivery::Pending));
    });
    assert_eq!(vectors, 0, "bytes");
}
