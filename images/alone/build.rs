//! Links the kernel at an address in the RAM of QEMU's `virt`.

fn main() {
    println!("cargo::rustc-link-arg-bins=--image-base=0x40200000");
}
