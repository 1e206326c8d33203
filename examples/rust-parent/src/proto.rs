//! The messages: generated ones, and those of grpc.health.v1.
#![allow(dead_code)] // an example needs few of them

pub mod ml {
    include!(concat!(env!("OUT_DIR"), "/ml.rs"));
}

pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/tabml.v1.rs"));
}

pub mod health {
    pub const SERVING: i32 = 1;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CheckRequest {
        #[prost(string, tag = "1")]
        pub service: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CheckResponse {
        #[prost(int32, tag = "1")]
        pub status: i32,
    }
}
