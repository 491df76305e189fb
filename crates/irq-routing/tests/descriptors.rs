//! Number of file descriptors that routes and eventfds use. This is a separate, single-threaded
//! test program because it counts the descriptors of the whole process.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trials {
    use irq_routing::irqfd::EventfdPoller;
    use irq_routing::kvm::{KvmConfig, KvmRouter, MsiIrqfdSet, RustVmm};
    use irq_routing::{RoutedMessage, Routing, Sender};
    use kvm_ioctls::Kvm;
    use libtest_mimic::{Completion, Failed, Trial};
    use msi_types::MsiMessage;
    use std::error::Error;
    use std::sync::Arc;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    type Outcome = Result<(), Box<dyn Error>>;

    const VECTORS: usize = 64;

    pub(super) fn all() -> Vec<Trial> {
        vec![
            trial("a_router_opens_and_duplicates_none", router),
            trial("vectors_cost_none_wherever_they_are_served", vectors),
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
