//! A parent of tabml's server: serves it model files, starts it, calls its services, stops it.

mod files;
mod grpc;
mod proto;

use std::{env, error::Error, fs, process::Stdio, time::Duration};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};

use grpc::{Client, Status};
use proto::{health, ml, v1};

const MODEL: &str = "face_detector";
const FRAMES: i32 = 30;
const FRAME_MS: i64 = 33;

#[tokio::main]
async fn main() {
    if let Err(problem) = run().await {
        eprintln!("error: {problem}");
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [python, folder, picture]: [String; 3] =
        arguments.try_into().map_err(|_| "usage: rust-parent PYTHON MODEL_FOLDER PICTURE.jpg")?;
    let picture = Bytes::from(fs::read(&picture).map_err(|problem| format!("{picture}: {problem}"))?);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let file_endpoint = listener.local_addr()?.to_string();
    tokio::spawn(files::serve(listener, folder.into()));

    let (mut server, address) = start(&python, &file_endpoint).await?;
    let client = Client::connect(&address).await?;
    let summary = use_all(&client, picture).await?;

    let drain = v1::DrainRequest { grace_s: 5.0 };
    client.unary::<v1::DrainResponse>("/tabml.v1.RuntimeService/Drain", &drain).await?;
    let ended = timeout(Duration::from_secs(20), server.wait()).await??;
    if !ended.success() {
        return Err(format!("the server ended with {ended}").into());
    }
    println!("ok: {summary}");
    Ok(())
}

/// Start the server and wait for the one line on its stdout. It is killed when the Child is dropped.
async fn start(python: &str, file_endpoint: &str) -> Result<(Child, String), Box<dyn Error>> {
    let mut server = Command::new(python)
        .args(["-m", "tabml_grpc", "--port", "0", "--file-endpoint", file_endpoint])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|problem| format!("{python}: {problem}"))?;
    let mut line = String::new();
    let stdout = server.stdout.as_mut().expect("it is piped");
    timeout(Duration::from_secs(30), BufReader::new(stdout).read_line(&mut line)).await??;
    print!("{line}");
    let address = line
        .strip_prefix("TABML/1 READY ") // and JSON: with serde_json at hand, use that
        .and_then(|ready| ready.split_once(r#""address":""#)?.1.split_once('"'))
        .ok_or_else(|| format!("the server said {line:?} instead of being ready"))?
        .0;
    Ok((server, address.to_owned()))
}

async fn use_all(client: &Client, picture: Bytes) -> Result<String, Status> {
    let health: health::CheckResponse =
        client.unary("/grpc.health.v1.Health/Check", &health::CheckRequest::default()).await?;
    println!("health: {}", if health.status == health::SERVING { "serving" } else { "not serving" });

    let info: v1::GetInfoResponse = client.unary("/tabml.v1.RuntimeService/GetInfo", &v1::GetInfoRequest {}).await?;
    println!("info: tabml {}, families {:?}, files from {}", info.version, info.families, info.files);

    let load = v1::LoadModelRequest { model_id: MODEL.into(), ..Default::default() };
    let mut progress = client.server_stream("/tabml.v1.ModelService/LoadModel", &load).await?;
    let mut model = v1::ModelInfo::default();
    while let Some(step) = progress.next::<v1::LoadModelResponse>().await? {
        println!("load: {:?} {} {}/{}", step.phase(), step.file, step.bytes_done, step.bytes_total);
        model = step.model.unwrap_or(model);
    }

    let loaded: ml::LoadedModelsResponse =
        client.unary("/ml.ModelManagementService/GetLoadedModels", &ml::EmptyRequest {}).await?;
    println!("loaded: {:?}", loaded.models.iter().map(|model| &model.model_id).collect::<Vec<_>>());

    let image = ml::ImageRequest { image_data: picture.clone(), format: "jpeg".into(), ..Default::default() };
    let found: ml::FaceDetectionResponse = client.unary("/ml.MediapipeService/DetectFaces", &image).await?;
    for face in &found.faces {
        println!("face: {:.2} at {:.3} {:.3}, {:.3} x {:.3}", face.confidence, face.x, face.y, face.width, face.height);
    }

    let frame = v1::Frame { data: picture.clone(), ..Default::default() };
    let task = v1::TaskConfig { task: v1::VisionTask::FaceDetection.into(), config: None };
    let analyze = v1::AnalyzeRequest { frame: Some(frame), tasks: vec![task] };
    let answer: v1::AnalyzeResponse = client.unary("/tabml.v1.VisionService/Analyze", &analyze).await?;
    let analysis = answer.analysis.unwrap_or_default();
    println!("analysis: {} x {}, faces: {}", analysis.width, analysis.height, analysis.faces.len());

    let (answered, dropped) = stream(client, picture).await?;

    let unload = v1::UnloadModelsRequest { model_ids: vec![MODEL.into()], ..Default::default() };
    let unloaded: v1::UnloadModelsResponse = client.unary("/tabml.v1.ModelService/UnloadModels", &unload).await?;
    println!("unloaded: {:?}", unloaded.model_ids);
    Ok(format!(
        "{MODEL} of {} bytes, faces: {}, {answered} of {FRAMES} frames answered, {dropped} dropped",
        model.bytes_fetched,
        found.faces.len()
    ))
}

/// Frames at a camera's pace: how many were answered, and how many the server dropped because it was busy.
async fn stream(client: &Client, picture: Bytes) -> Result<(i32, i32), Status> {
    let (mut frames, mut answers) =
        client.open("/ml.MediapipeService/StreamFaceDetection", Duration::from_secs(60)).await?;
    let sending = async {
        let mut clock = interval(Duration::from_millis(FRAME_MS as u64));
        for frame_number in 0..FRAMES {
            clock.tick().await;
            let timestamp_ms = i64::from(frame_number) * FRAME_MS;
            let (frame_data, format) = (picture.clone(), "jpeg".into());
            frames
                .send(&ml::VideoFrame { frame_data, format, timestamp_ms, frame_number, ..Default::default() })
                .await?;
        }
        frames.end()
    };
    let receiving = async {
        let (mut answered, mut dropped) = (0, 0);
        while let Some(answer) = answers.next::<ml::FaceDetectionResponse>().await? {
            let stats = answer.stats.unwrap_or_default();
            answered += i32::from(stats.error.is_empty());
            dropped += stats.dropped;
        }
        Ok::<_, Status>((answered, dropped))
    };
    let (sent, received) = tokio::join!(sending, receiving);
    let (answered, dropped) = received?; // first: if the call failed, this is its status
    sent?;
    println!("stream: {answered} frames answered, {dropped} dropped");
    Ok((answered, dropped))
}
