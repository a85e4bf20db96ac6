//! x
fn main() {
    let p = std::env::args().nth(1).unwrap();
    let b = exeat::manifest::Bundle::read(std::path::Path::new(&p));
    match b {
        Ok(b) => match b.snapshot(1) {
            Ok(s) => println!("{:?} {}", s.counts(), s.digest()),
            Err(e) => {
                for p in e {
                    println!("{p}")
                }
            }
        },
        Err(e) => {
            for p in e {
                println!("{p}")
            }
        }
    }
}
