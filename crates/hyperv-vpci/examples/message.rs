//! Emits a guest's request as bytes, and parses it as the host does.

use hyperv_vpci::protocol::{ProtocolError, Request, Slot};

fn main() -> Result<(), ProtocolError> {
    let request = Request::QueryResources(Slot::new(1, 2));
    let mut bytes = [0; 8];
    request.emit(&mut bytes)?;
    println!("{request:?} is {bytes:02x?}");
    assert_eq!(Request::parse(&bytes), Ok(request));
    Ok(())
}
