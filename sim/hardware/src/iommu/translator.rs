//! The IOMMU as a monitor emulates it for its routes. DeviceIDs are requester IDs.

use super::{Iommu, lock};
use irq_routing::{Access, TranslateMsi};
use msi_types::{DeviceId, RequesterId};

impl TranslateMsi for Iommu {
    fn translate(&self, device: DeviceId, iova: u64, access: Access) -> Option<u64> {
        let device = RequesterId::new(device.get());
        match access {
            Access::Message => self.translate_write(device, iova),
            Access::Prefetch => lock(&self.state).translate(device, iova),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iommu::IommuDriver;
    use irq_domain::layer::{DoorbellMode, Iommu as _, IommuDomain, IovaConstraint};
    use irq_routing::{
        Change, GsiSpace, Inputs, Invalidation, Route, RoutedMessage, Router, Routing, Sender,
    };
    use msi_types::{Delivery, Granule, Gsi, Level, Line, MsiMessage, SetLine, SignalMsi};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};

    const DEVICES: u32 = 3;
    const ITS: u64 = 0x0809_0000;
    const OFFSET: u64 = 0x40;

    /// Domain 2 has pages of 64 KiB, which several IOVAs share.
    fn granule(domain: u32) -> Granule {
        if domain == 2 { Granule::Size64K } else { Granule::Size4K }
    }

    /// A controller with doorbells in two pages. Records the messages that it accepts.
    #[derive(Default)]
    struct Controller(Mutex<Vec<(u32, MsiMessage)>>);

    impl Controller {
        fn take(&self, device: u32, message: MsiMessage) -> Delivery {
            if ![ITS, ITS + 0x1000].contains(&(message.address - OFFSET)) {
                return Delivery::NoDoorbell;
            }
            lock(&self.0).push((device, message));
            Delivery::Pending
        }
    }

    impl SignalMsi<RequesterId> for Controller {
        fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
            self.take(from.get(), message)
        }
    }

    impl SignalMsi<DeviceId> for Controller {
        fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
            self.take(from.get(), message)
        }
    }

    impl SetLine for Controller {
        fn set_line(&self, _: Line, _: Level) -> Delivery {
            Delivery::Blocked
        }

        fn pulse(&self, _: Line) -> Delivery {
            Delivery::Blocked
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum TableStep {
        Map {
            domain: u32,
            page: u64,
            target: u64,
        },
        /// Unmaps a page, and invalidates it for all devices, as `CMD_TLBI_NH_VA` does.
        Unmap {
            domain: u32,
            page: u64,
        },
        /// Attaches a device to a domain, and invalidates the device, as `CMD_CFGI_STE` does.
        Attach {
            device: u32,
            domain: u32,
        },
        /// Replaces a domain, and invalidates everything.
        Replace {
            domain: u32,
            identity: bool,
        },
        Send {
            device: u32,
            page: u64,
            routed: bool,
        },
    }

    fn steps() -> impl Strategy<Value = TableStep> {
        let (device, domain, page) = (0..DEVICES, 0..3u32, (0..6u64).prop_map(|page| page << 12));
        let iova = prop_oneof![page, Just(ITS)];
        let target = (0..3u64).prop_map(|page| ITS + (page << 12));
        prop_oneof![
            3 => (domain.clone(), iova.clone(), target)
                .prop_map(|(domain, page, target)| TableStep::Map { domain, page, target }),
            2 => (domain.clone(), iova.clone())
                .prop_map(|(domain, page)| TableStep::Unmap { domain, page }),
            1 => (device.clone(), domain.clone())
                .prop_map(|(device, domain)| TableStep::Attach { device, domain }),
            1 => (domain, any::<bool>())
                .prop_map(|(domain, identity)| TableStep::Replace { domain, identity }),
            6 => (device, iova, any::<bool>())
                .prop_map(|(device, page, routed)| TableStep::Send { device, page, routed }),
        ]
    }

    /// The machine's IOMMU, which translates each message, and a router that has copies.
    struct Machine {
        driver: IommuDriver,
        expected: Arc<Controller>,
        controller: Arc<Controller>,
        router: Router,
        mapped: BTreeSet<(u32, u64)>,
    }

    impl Machine {
        fn new() -> Self {
            let (expected, controller) = <(Arc<Controller>, Arc<Controller>)>::default();
            let unit = Arc::new(Iommu::new(expected.clone()));
            let inputs = Inputs::new(controller.clone()).with_its(controller.clone());
            let inputs = inputs.with_translator(unit.clone());
            let router = Router::new(GsiSpace::default(), inputs).unwrap();
            let driver = IommuDriver::new(unit);
            Self { driver, expected, controller, router, mapped: BTreeSet::new() }
        }

        fn run(&mut self, step: TableStep) {
            let unit = self.driver.unit().clone();
            match step {
                TableStep::Map { domain, page, target } => {
                    let [page, target] = [page, target].map(|at| granule(domain).page(at));
                    let at = IovaConstraint::At(page);
                    if self.driver.map(IommuDomain(domain), target, at).is_ok() {
                        self.mapped.insert((domain, page));
                    }
                }
                TableStep::Unmap { domain, page } => {
                    let first = granule(domain).page(page);
                    if self.mapped.remove(&(domain, first)) {
                        self.driver.unmap(IommuDomain(domain), first);
                        let page = first..=first + granule(domain).bytes() - 1;
                        self.invalidate(&Invalidation::all().with_addresses(page));
                    }
                }
                TableStep::Attach { device, domain } => {
                    unit.attach(RequesterId::new(device), IommuDomain(domain));
                    let device = DeviceId::new(device);
                    self.invalidate(&Invalidation::all().with_devices(device..=device));
                }
                TableStep::Replace { domain, identity } => {
                    let mapped = DoorbellMode::Mapped(granule(domain));
                    let mode = if identity { DoorbellMode::Identity } else { mapped };
                    unit.create(IommuDomain(domain), mode);
                    self.mapped.retain(|(other, _)| *other != domain);
                    self.invalidate(&Invalidation::all());
                }
                TableStep::Send { device, page, routed } => self.send(&unit, device, page, routed),
            }
        }

        fn invalidate(&self, invalidation: &Invalidation) {
            self.router.invalidate(invalidation).unwrap();
        }

        /// Sends a message past the router and through it. Both must have the same effects.
        fn send(&self, unit: &Iommu, device: u32, page: u64, routed: bool) {
            let message = MsiMessage { address: page | OFFSET, data: device };
            let expected = unit.signal_msi(RequesterId::new(device), message);
            let stopped = unit.stopped();
            let sender = Sender::Device(DeviceId::new(device));
            let message = RoutedMessage { sender, message };
            let delivery = if routed {
                let gsi = Gsi::new(1000 + device);
                self.router.commit(&[Change::Set(gsi, Route::Message(message))]).unwrap();
                self.router.signal(gsi)
            } else {
                irq_routing::MessageSink::signal_msi(&self.router, message)
            };
            assert_eq!(delivery, Ok(expected));
            assert_eq!(unit.stopped() - stopped, u64::from(expected == Delivery::Blocked));
            assert_eq!(*lock(&self.controller.0), *lock(&self.expected.0));
        }
    }

    proptest! {
        #[test]
        fn routes_translate_as_the_iommu_does(
            steps in prop::collection::vec(steps(), 0..200),
        ) {
            let mut machine = Machine::new();
            for device in 0..DEVICES {
                machine.run(TableStep::Replace { domain: device, identity: false });
                machine.run(TableStep::Attach { device, domain: device });
            }
            for step in steps {
                machine.run(step);
            }
            let (messages, blocked) = (lock(&machine.expected.0).len(), machine.router.dropped());
            prop_assert_eq!(machine.driver.unit().stopped(), 2 * blocked);
            prop_assert!(messages < 200);
        }
    }
}
