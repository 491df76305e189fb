//! Which message store a function uses: MSI-X if available, otherwise MSI.

use crate::function::{AT, Function};
use crate::mock::Kernel;
use irq_domain::pci::{AccessContext, PciError, TableMemory, find_store};
use msi_types::Shape;
use msi_types::pci::{msi, msix};
use std::sync::Arc;

fn mapped(function: &Arc<Function>) -> impl FnMut(u8) -> Option<Arc<dyn TableMemory>> {
    let memory = function.clone();
    move |bir| (bir == 2).then(|| memory.clone() as _)
}

fn unmapped(_: u8) -> Option<Arc<dyn TableMemory>> {
    None
}

#[test]
fn msix_is_preferred_over_msi() {
    let function = Function::with_msix(5);
    function.set_list(&[(0x80, msi::CAPABILITY_ID, 0x50), (AT, msix::CAPABILITY_ID, 0)]);
    let found = find_store(function.clone(), Arc::new(Kernel), mapped(&function)).unwrap();
    assert_eq!((found.store.slots(), found.shape), (5, Shape::Independent));
}

#[test]
fn a_function_without_msix_uses_msi() {
    let control = msi::Control::new().with_multiple_message_capable(2);
    let function = Function::with_msi(control, AccessContext::Any);
    let found = find_store(function, Arc::new(Kernel), unmapped).unwrap();
    assert_eq!((found.store.slots(), found.shape), (4, Shape::AlignedGroup));
}

#[test]
fn function_without_msi_or_msix_is_refused() {
    let function = Function::with_list(&[(AT, 0x01, 0)]);
    let error = find_store(function, Arc::new(Kernel), unmapped).unwrap_err();
    assert_eq!(error, PciError::NoMessages);
    assert_eq!(error.to_string(), "the function has neither MSI-X nor MSI");
}

#[test]
fn unmapped_table_is_refused() {
    let function = Function::with_msix(1);
    let error = find_store(function, Arc::new(Kernel), unmapped).unwrap_err();
    assert_eq!(error, PciError::NotMapped { bir: 2 });
}

#[test]
fn errors_name_the_pci_capability() {
    let text = |id| PciError::NoCapability { id }.to_string();
    assert_eq!(text(msix::CAPABILITY_ID), "the function has no MSI-X capability");
    assert_eq!(text(msi::CAPABILITY_ID), "the function has no MSI capability");
    assert_eq!(text(0x10), "the function has no PCI 0x10 capability");
    let error = PciError::CapabilityTooLong { id: msix::CAPABILITY_ID, offset: 0xfc };
    assert!(error.to_string().starts_with("the MSI-X capability at 0xfc reaches beyond"));
}
