//! A new migration is a reason to compile: `sqlx::migrate!` by itself only knows those that it embedded.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
