//! Messages on a virtual PCI bus from an untrusted peer. A message is either rejected, or parsed
//! into a value that can be emitted and then parsed to the same value.
#![no_main]

use hyperv_vpci::protocol::reply::{AssignedReply, BarsReply, InterruptReply};
use hyperv_vpci::protocol::{MAX_MESSAGE, Notice, Request, Retarget};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut out = vec![0; input.len().max(MAX_MESSAGE)];
    if let Ok(request) = Request::parse(input) {
        let length = request.emit(&mut out).expect("a parsed message can be emitted");
        assert_eq!(Request::parse(&out[..length]), Ok(request));
    }
    if let Ok(notice) = Notice::parse(input) {
        let length = notice.emit(&mut out).expect("a parsed message can be emitted");
        assert_eq!(Notice::parse(&out[..length]), Ok(notice));
    }
    let _ = (AssignedReply::parse(input), BarsReply::parse(input));
    let _ = (InterruptReply::parse(input), Retarget::parse(input));
});
