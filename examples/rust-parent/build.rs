//! Rust messages from the proto files; the calls themselves are in src/grpc.rs.

fn main() -> std::io::Result<()> {
    let protos = ["ml/ml_inference.proto", "v1/files.proto", "v1/models.proto", "v1/runtime.proto", "v1/vision.proto"];
    prost_build::Config::new()
        .bytes(["."]) // pictures and file chunks aren't copied when they are cloned or decoded
        .compile_protos(&protos.map(|name| format!("../../protos/tabml_grpc/{name}")), &["../../protos"])
}
