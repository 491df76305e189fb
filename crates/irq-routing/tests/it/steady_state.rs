//! Heap allocations of signals and changes.

use doorbell_test_support::heap_use;
use irq_routing::msix::{MsixTable, Signaled};
use irq_routing::{Access, Change, GsiSpace, Inputs, Invalidation, Pin, Route};
use irq_routing::{Router, Routing, Sender, TranslateMsi};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, Gsi, Level, Line, MsiMessage, SetLine, SignalMsi};
use std::sync::Arc;

/// Controller that accepts every input and records none.
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

impl TranslateMsi for Taker {
    fn translate(&self, _: DeviceId, iova: u64, _: Access) -> Option<u64> {
        Some(iova)
    }
}

fn message(gsi: u32, event: u32) -> Change {
    let message = MsiMessage { address: 0x0809_0040, data: event };
    Change::Set(Gsi::new(gsi), Route::to_its(DeviceId::new(1), message))
}

fn allocated(run: impl FnOnce()) -> usize {
    heap_use(run).1.allocated
}

#[test]
fn steady_state_allocates_nothing() {
    let inputs = Inputs::new(Arc::new(Taker)).with_its(Arc::new(Taker));
    allocates_nothing(inputs.clone());
    allocates_nothing(inputs.with_translator(Arc::new(Taker)));
}

fn allocates_nothing(inputs: Inputs) {
    let space = GsiSpace::new(GsiSpace::MAX).with_first_allocated(0);
    let router = Router::new(space, inputs).unwrap();

    let sparse = allocated(|| {
        router.commit(&[message(3, 0), message(1_000_000, 0)]).unwrap();
    });
    assert!((1..0x4000).contains(&sparse), "{sparse} bytes for two routes");

    let pin = Change::Set(Gsi::new(4), Route::Pin(Pin::new(1).unwrap()));
    let steady = allocated(|| {
        for event in 0..100 {
            router.commit(&[message(3, event), pin, message(1_000_000, event)]).unwrap();
            for gsi in [3, 4, 1_000_000] {
                assert_eq!(router.signal(Gsi::new(gsi)), Ok(Delivery::Pending));
            }
            router.set_level(Gsi::new(4), Level::High).unwrap();
            let given = router.allocate().unwrap();
            router.release(&[given]).unwrap();
            router.invalidate(&Invalidation::all()).unwrap();
        }
    });
    assert_eq!(steady, 0, "bytes");

    let table = MsixTable::new(2, Sender::Device(DeviceId::new(1)), Arc::new(router)).unwrap();
    table.write_control(Control::new().with_enable(true));
    table.write(0x1c, &0u32.to_le_bytes());
    let vectors = allocated(|| {
        assert_eq!(table.signal(0), Signaled::Held);
        assert_eq!(table.signal(1), Signaled::Sent(Delivery::Pending));
    });
    assert_eq!(vectors, 0, "bytes");
}
