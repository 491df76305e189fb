//! Routing without KVM: a network device's vector is routed to an ITS, and a UART's interrupt to an
//! SPI.

use irq_routing::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing};
use msi_types::{Delivery, DeviceId, Gsi, Level, Line, MsiMessage, SetLine, SignalMsi};
use std::{error::Error, sync::Arc};

/// Stand-in for an interrupt controller model such as `vgic::Vgic`.
struct Gic;

impl SetLine for Gic {
    fn set_line(&self, line: Line, level: Level) -> Delivery {
        println!("{line:?} is {level:?}");
        Delivery::Pending
    }
    fn pulse(&self, line: Line) -> Delivery {
        println!("an edge on {line:?}");
        Delivery::Pending
    }
}

impl SignalMsi<DeviceId> for Gic {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        println!("device {from} sends event {}", message.data);
        Delivery::Pending
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let inputs = Inputs::new(Arc::new(Gic)).with_its(Arc::new(Gic));
    let router = Router::new(GsiSpace::default(), inputs)?;

    let (uart, queue) = (Gsi::new(1), router.allocate()?);
    let message = MsiMessage { address: 0x0809_0040, data: 2 };
    router.commit(&[
        Change::Set(uart, Route::Pin(Pin::of_spi(33)?)),
        Change::Set(queue, Route::to_its(DeviceId::new(8), message)),
    ])?;
    assert_eq!(router.signal(queue)?, Delivery::Pending);
    assert_eq!(router.set_level(uart, Level::High)?, Delivery::Pending);
    Ok(())
}
