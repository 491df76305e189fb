//! Number of file descriptors that routes and eventfds use. This is a separate, single-threaded
//! test program because it counts and limits the descriptors of the whole process.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trials {
    use irq_routing::device_eventfds::DeviceEventfds;
    use irq_routing::irqfd::{EventfdPoller, IrqfdError, MessageEventfdSet};
    use irq_routing::kvm::{KvmConfig, KvmRouter, MsiIrqfdSet, RustVmm};
    use irq_routing::msix::MsixTable;
    use irq_routing::{GsiSpace, Inputs, RoutedMessage, Router, Routing, Sender};
    use kvm_ioctls::Kvm;
    use libtest_mimic::{Completion, Failed, Trial};
    use msi_types::pci::msix::Control;
    use msi_types::{Delivery, DeviceId, Level, Line, MsiMessage, SetLine};
    use rustix::event::{EventfdFlags, eventfd};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use std::error::Error;
    use std::sync::Arc;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    type Outcome = Result<(), Box<dyn Error>>;

    const VECTORS: usize = 64;

    pub(super) fn all() -> Vec<Trial> {
        vec![
            trial("a_router_opens_and_duplicates_none", router),
            trial("vectors_cost_none_wherever_they_are_served", vectors),
            Trial::test("an_unmask_opens_no_file", || {
                unmask().map_err(|error| Failed::from(error.to_string()))
            }),
        ]
    }

    fn trial(name: &str, run: fn() -> Outcome) -> Trial {
        Trial::ignorable_test(name, move || {
            if let Err(error) = Kvm::new() {
                return Ok(Completion::ignored_with(format!("/dev/kvm cannot be used: {error}")));
            }
            run().map_err(|error| Failed::from(error.to_string()))?;
            Ok(Completion::Completed)
        })
    }

    fn open() -> Result<usize, Box<dyn Error>> {
        Ok(std::fs::read_dir("/proc/self/fd")?.count())
    }

    fn expect(found: usize, expected: usize) -> Outcome {
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found} descriptors instead of {expected}").into())
        }
    }

    fn eventfds() -> Result<Vec<Arc<EventFd>>, Box<dyn Error>> {
        let one = || Ok(Arc::new(EventFd::new(EFD_NONBLOCK)?));
        (0..VECTORS).map(|_| one()).collect()
    }

    fn router() -> Outcome {
        let vm = Arc::new(Kvm::new()?.create_vm()?);
        vm.create_irq_chip()?;
        let devices = eventfds()?;
        let before = open()?;

        let router = KvmRouter::new(RustVmm(vm), KvmConfig::new(24))?;
        let mut bound = Vec::new();
        for device in &devices {
            bound.push(router.bind(RustVmm(device), router.allocate()?)?);
        }

        expect(open()?, before)
    }

    /// In addition to the poller's own descriptor, the set owns one for its timer.
    fn vectors() -> Outcome {
        let vm = Arc::new(Kvm::new()?.create_vm()?);
        vm.create_irq_chip()?;
        let devices = eventfds()?;
        let router = Arc::new(KvmRouter::new(RustVmm(vm), KvmConfig::new(24))?);
        let poller = EventfdPoller::new()?;
        let before = open()?;

        let irqfds = MsiIrqfdSet::new(router, poller)?;
        let vectors: Vec<_> =
            devices.iter().map(|device| irqfds.add(RustVmm(device.clone()))).collect();
        for vector in &vectors {
            let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
            vector.open(RoutedMessage { sender: Sender::Anonymous, message })?;
        }

        expect(open()?, before + 1)?;
        irqfds.hand_over()?;
        expect(open()?, before + 1)
    }

    /// Controller without lines.
    struct NoLines;

    impl SetLine for NoLines {
        fn set_line(&self, _: Line, _: Level) -> Delivery {
            Delivery::Blocked
        }

        fn pulse(&self, _: Line) -> Delivery {
            Delivery::Blocked
        }
    }

    /// Masks and unmasks a vector while the process cannot open any file. A duplicate of the
    /// vector's eventfd must be refused afterwards, so the unmask must know the eventfd's identity
    /// without reading `/proc`.
    fn unmask() -> Outcome {
        let router = Arc::new(Router::new(GsiSpace::default(), Inputs::new(Arc::new(NoLines)))?);
        let poller = EventfdPoller::new()?;
        let irqfds = MessageEventfdSet::new(poller, router.clone());
        let eventfds = Arc::new(DeviceEventfds::new(irqfds));
        let table = MsixTable::new(2, Sender::Device(DeviceId::new(8)), router)?;
        let table = table.with_observer(eventfds.clone());
        let device = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        for vector in 0..2 {
            let source = eventfds.add(device.try_clone()?)?;
            eventfds.set_vector(source, Some(vector))?;
        }
        table.write_control(Control::new().with_enable(true));
        let mask = |vector: u64, masked: u32| {
            table.write(vector * 16 + 12, &masked.to_le_bytes());
        };

        let errors = without_opening_files(|| {
            for masked in [0, 1, 0] {
                mask(0, masked);
            }
            mask(1, 0);
            eventfds.take_errors()
        })?;

        match &*errors {
            [error] if matches!(error.error, IrqfdError::AlreadyBound) && error.vector == 1 => {
                Ok(())
            }
            _ => Err(format!("the duplicate was not refused: {errors:?}").into()),
        }
    }

    /// Runs `work` while the process may not open any further file descriptor.
    fn without_opening_files<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Error>> {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before })?;
        let result = if std::fs::File::open("/proc/self/fdinfo").is_err() {
            Ok(work())
        } else {
            Err("the limit has no effect".into())
        };
        setrlimit(Resource::Nofile, before)?;
        result
    }
}

use libtest_mimic::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, all()).exit_code()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn all() -> Vec<libtest_mimic::Trial> {
    trials::all()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn all() -> Vec<libtest_mimic::Trial> {
    Vec::new()
}
