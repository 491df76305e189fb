//! Links the image by image-rt's script.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Timage-rt.ld");
}
