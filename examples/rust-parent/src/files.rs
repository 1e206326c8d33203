//! The file server: model files for tabml, FOLDER/<model_id>/<path>.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use h2::server::SendResponse;
use http::{Request, Response};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::{TcpListener, TcpStream};

use crate::grpc::{Incoming, Outgoing, Status};
use crate::proto::{ml, v1};

const CHUNK: i64 = 1 << 20;

/// Serve a folder for as long as the process lives.
pub async fn serve(listener: TcpListener, folder: PathBuf) {
    while let Ok((socket, _)) = listener.accept().await {
        let folder = folder.clone();
        tokio::spawn(async move {
            if let Err(problem) = connection(socket, folder).await {
                eprintln!("file server: {problem}");
            }
        });
    }
}

async fn connection(socket: TcpStream, folder: PathBuf) -> Result<(), Status> {
    socket.set_nodelay(true).ok();
    let mut calls = h2::server::handshake(socket).await?;
    while let Some(call) = calls.accept().await {
        let (request, respond) = call?;
        let folder = folder.clone();
        tokio::spawn(async move { answer(request, respond, &folder).await }); // fails when the caller is gone
    }
    Ok(())
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<bytes::Bytes>,
    folder: &Path,
) -> Result<(), Status> {
    let (head, body) = request.into_parts();
    let response = Response::builder().header("content-type", "application/grpc").body(()).expect("it is constant");
    let mut out = Outgoing(respond.send_response(response, false)?);
    let result = dispatch(head.uri.path(), Incoming::new(body), &mut out, folder).await;
    out.end_with(result)
}

async fn dispatch(method: &str, mut body: Incoming, out: &mut Outgoing, folder: &Path) -> Result<(), Status> {
    match method {
        "/tabml.v1.ModelFileService/ListFiles" => {
            let request: v1::ListFilesRequest = body.next().await?.unwrap_or_default();
            let model = inside(folder, &request.model_id)?;
            let mut files = Vec::new();
            walk(&model, &model, &mut files).map_err(|problem| unreadable(&request.model_id, problem))?;
            out.send(&v1::ListFilesResponse { files }).await
        }
        "/tabml.v1.ModelFileService/ReadFile" => {
            let request = body.next().await?.unwrap_or_default();
            send_file(folder, request, out, |chunk| chunk).await
        }
        // What older servers call instead.
        "/ml.ModelManagementService/GetModelFile" => {
            let ml::ModelFileRequest { model_id, file_path: path } = body.next().await?.unwrap_or_default();
            send_file(folder, v1::ReadFileRequest { model_id, path, ..Default::default() }, out, |chunk| {
                let v1::ReadFileResponse { data, offset, total_size, sha256 } = chunk;
                let is_last = offset + data.len() as i64 == total_size;
                ml::ModelFileChunk { data, offset, total_size, is_last, sha256 }
            })
            .await
        }
        _ => Err(Status::new(Status::UNIMPLEMENTED, format!("{method} is not served here"))),
    }
}

/// Send a file, or the wanted part of it, each chunk in the message that `wrap` makes.
async fn send_file<M: Message>(
    folder: &Path,
    request: v1::ReadFileRequest,
    out: &mut Outgoing,
    wrap: fn(v1::ReadFileResponse) -> M,
) -> Result<(), Status> {
    let v1::ReadFileRequest { mut offset, length, .. } = request;
    let name = format!("{}/{}", request.model_id, request.path);
    let failed = |problem| unreadable(&name, problem);
    let mut file = tokio::fs::File::open(inside(folder, &name)?).await.map_err(failed)?;
    let about = file.metadata().await.map_err(failed)?;
    if !about.is_file() {
        return Err(Status::new(Status::NOT_FOUND, format!("{name} is not a file")));
    }
    let total_size = about.len() as i64;
    if offset < 0 || offset > total_size || length < 0 {
        let message = format!("{name} has {total_size} bytes, none at offset {offset} with length {length}");
        return Err(Status::new(Status::INVALID_ARGUMENT, message));
    }
    let end = if length == 0 { total_size } else { total_size.min(offset.saturating_add(length)) };
    let step = if request.chunk_bytes > 0 { CHUNK.min(request.chunk_bytes.into()) } else { CHUNK };
    file.seek(SeekFrom::Start(offset as u64)).await.map_err(failed)?;
    loop {
        let mut data = vec![0; step.min(end - offset) as usize];
        file.read_exact(&mut data).await.map_err(failed)?;
        // Where you know the file's checksum, as from a manifest, tell it: tabml then checks what arrives.
        let sha256 = String::new();
        let next = offset + data.len() as i64;
        out.send(&wrap(v1::ReadFileResponse { data: data.into(), offset, total_size, sha256 })).await?;
        if next == end {
            return Ok(()); // after one empty chunk, if the file is empty
        }
        offset = next;
    }
}

/// FOLDER/name, for names that stay inside.
fn inside(folder: &Path, name: &str) -> Result<PathBuf, Status> {
    let strange = |part: &str| matches!(part, "" | "." | "..") || part.contains(&['\\', '\0'][..]);
    if name.split('/').any(strange) {
        return Err(Status::new(Status::INVALID_ARGUMENT, format!("{name:?} is not a plain relative name")));
    }
    Ok(folder.join(name))
}

fn walk(model: &Path, folder: &Path, files: &mut Vec<v1::ModelFile>) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            walk(model, &path, files)?;
        } else if let Some(name) = path.strip_prefix(model).ok().and_then(Path::to_str) {
            let size = Some(path.metadata()?.len() as i64);
            files.push(v1::ModelFile { path: name.to_owned(), size, sha256: String::new() });
        }
    }
    Ok(())
}

fn unreadable(name: &str, problem: io::Error) -> Status {
    match problem.kind() {
        io::ErrorKind::NotFound => Status::new(Status::NOT_FOUND, format!("there is no {name}")),
        _ => Status::new(Status::UNAVAILABLE, format!("{name}: {problem}")),
    }
}
