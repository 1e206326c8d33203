// A client of C++ that calls one method each time a line comes and prints the milliseconds that took.
// bench_client ADDRESS METHOD stream|unary REQUEST_FILE [METADATA_KEY METADATA_FILE]
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

using grpc::ByteBuffer;
using grpc::internal::RpcMethod;

static std::string content(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int main(int count, char** words) {
  if (count != 5 && count != 7) return 2;
  grpc::ChannelArguments settings;
  settings.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 2 << 20);  // what Rust's hyper has by default
  auto channel = grpc::CreateCustomChannel(words[1], grpc::InsecureChannelCredentials(), settings);
  const bool stream = std::string(words[3]) == "stream";
  const RpcMethod method(words[2], stream ? RpcMethod::SERVER_STREAMING : RpcMethod::NORMAL_RPC);
  grpc::Slice slice(content(words[4]));
  const ByteBuffer request(&slice, 1);
  for (std::string line; std::getline(std::cin, line);) {
    const auto began = std::chrono::steady_clock::now();
    grpc::ClientContext context;
    if (count == 7) context.AddMetadata(words[5], content(words[6]));
    grpc::Status status;
    ByteBuffer reply;
    if (stream) {
      std::unique_ptr<grpc::ClientReader<ByteBuffer>> reader(
          grpc::internal::ClientReaderFactory<ByteBuffer>::Create(channel.get(), method, &context, request));
      while (reader->Read(&reply)) {
      }
      status = reader->Finish();
    } else {
      status = grpc::internal::BlockingUnaryCall<ByteBuffer, ByteBuffer>(channel.get(), method, &context, request, &reply);
    }
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
    if (!status.ok()) {
      std::cerr << status.error_code() << ' ' << status.error_message() << std::endl;
      return 1;
    }
    std::cout << took.count() << std::endl;
  }
}
