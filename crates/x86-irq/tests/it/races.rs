//! Tests a CPU that goes offline while an arrival on another CPU asks it to clean up.

use msi_types::{
    BlockRequest, Cpu, Fit, Initially, MoveOutcome, MsiParent, RequesterId, Rewrite, Shape,
};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, OnceLock};
use x86_irq::{
    Apic, ApicId, ApicVector, Arrival, Cleanup, IrqState, LocalCpu, VectorDomain,
    VectorDomainConfig,
};

const CPU0: Cpu = Cpu::new(0);
const CPU1: Cpu = Cpu::new(1);

/// Local APICs, one of which is turned off at the worst moment.
#[derive(Default)]
struct LeavingApics {
    domain: OnceLock<Arc<VectorDomain>>,
    /// CPU that goes offline as soon as it is asked to clean up.
    leaving: Mutex<Option<Cpu>>,
    asked: Mutex<Vec<Cpu>>,
}

impl LocalCpu for LeavingApics {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn relax(&self) {
        unreachable!("a single thread never has to wait");
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl Apic for LeavingApics {
    fn send(&self, _: ApicId, _: ApicVector) {}

    fn is_requested(&self, _: Cpu, _: ApicVector) -> Option<bool> {
        Some(false)
    }

    fn request_cleanup(&self, cpu: Cpu) {
        self.asked.lock().unwrap().push(cpu);
        let leaves = self.leaving.lock().unwrap().take_if(|leaving| *leaving == cpu).is_some();
        if leaves {
            self.domain.get().unwrap().offline(cpu).unwrap();
        }
    }
}

#[test]
fn a_leaving_cpu_has_cleaned_up() {
    let apics = Arc::new(LeavingApics::default());
    let config = VectorDomainConfig::new(NonZeroU16::new(2).unwrap(), apics.clone());
    let domain = Arc::new(VectorDomain::new(config).unwrap());
    apics.domain.set(domain.clone()).unwrap();
    for cpu in [CPU0, CPU1] {
        domain.online(cpu, ApicId::new(cpu.get())).unwrap();
    }
    let free = domain.available_on(CPU0);
    let device = domain.attach(RequesterId::pci(1, 0, 0), 1).unwrap();
    let fit = Fit::new(Rewrite::Masked);
    let (count, shape, initially) = (NonZeroU16::MIN, Shape::Independent, Initially::Unmasked);
    let block = domain
        .allocate(
            &device,
            &BlockRequest::new(count, fit, CPU0).with_shape(shape).with_initially(initially),
        )
        .unwrap();
    let moved = domain.begin_move(&block, 0, CPU1).unwrap();
    domain.end_move(moved, MoveOutcome::Written).unwrap();
    assert_eq!(domain.available_on(CPU0), free - 1, "no arrival yet");

    // The arrival reads the CPU of the former vector, and that CPU goes offline before it is asked
    // to clean up.
    *apics.leaving.lock().unwrap() = Some(CPU0);
    let place = domain.cpu_vector(block.first()).unwrap();
    assert_eq!(domain.arrive(CPU1, place.vector), Arrival::Deliver(block.first()));
    assert_eq!(*apics.asked.lock().unwrap(), [CPU0]);
    assert_eq!(domain.available_on(CPU0), free, "going offline frees the former vector");

    // Once CPU 0 is online again, a clean-up request to it has no effect.
    domain.online(CPU0, ApicId::new(0)).unwrap();
    assert_eq!(domain.clean_up(CPU0), Cleanup::Done);
    assert_eq!((domain.available_on(CPU0), domain.cpu_vector(block.first())), (free, Some(place)));
    domain.free(&device, block);
    domain.detach(device);
}
