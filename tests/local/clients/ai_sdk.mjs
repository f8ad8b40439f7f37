// The Vercel AI SDK for `ai_sdk.py`: one JSON object a line, in and out.
// Argument: the folder with `node_modules`.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import path from "node:path";

const require = createRequire(path.join(path.resolve(process.argv[2]), "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { generateText, jsonSchema, Output, stepCountIs, streamText, tool } = await load("ai");
const { createAnthropic } = await load("@ai-sdk/anthropic");
const { createOpenAI } = await load("@ai-sdk/openai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");

globalThis.AI_SDK_LOG_WARNINGS = false; // they go to standard output
const models = {
  "openai chat": ({ origin, key, model }) =>
    createOpenAI({ baseURL: `${origin}/control/chat/v1`, apiKey: key }).chat(model),
  "openai responses": ({ origin, key, model }) =>
    createOpenAI({ baseURL: `${origin}/control/chat/v1`, apiKey: key })(model),
  "openai-compatible": ({ origin, key, model }) =>
    createOpenAICompatible({
      name: "gateway", baseURL: `${origin}/control/chat/v1`, apiKey: key,
      includeUsage: true, supportsStructuredOutputs: true,
    })(model),
  anthropic: ({ origin, key, model }) =>
    createAnthropic({ baseURL: `${origin}/control/chat/v1`, apiKey: key })(model),
};
const results = {
  get_weather: ({ city }) => `Sunny in ${city}`,
  get_time: ({ city }) => `Noon in ${city}`,
  pay: ({ amount }) => `Paid ${amount}`,
};
const conversations = new Map();

function request(order, calls) {
  const tools = Object.fromEntries(
    Object.entries(order.tools).map(([name, schema]) => [
      name,
      tool({
        description: name,
        inputSchema: jsonSchema(schema),
        execute: (input) => {
          calls.push([name, Object.values(input)[0]]);
          return results[name](input);
        },
      }),
    ]),
  );
  return {
    model: models[order.provider](order),
    tools,
    stopWhen: stepCountIs(8),
    ...(order.retries ? {} : { maxRetries: 0 }),
  };
}

async function say(order, calls) {
  const messages = conversations.get(order.conversation) ?? [];
  const prompt = [...messages, { role: "user", content: order.prompt }];
  const pieces = [];
  let result;
  if (order.stream) {
    result = streamText({ ...request(order, calls), messages: prompt, onError: () => {} });
    for await (const part of result.fullStream) {
      if (part.type === "error") throw part.error; // `textStream` would only end
      if (part.type === "text-delta") pieces.push(part.text);
    }
  } else {
    result = await generateText({ ...request(order, calls), messages: prompt });
  }
  const [text, end, response, usage] = await Promise.all(
    [result.text, result.finishReason, result.response, result.usage],
  );
  conversations.set(order.conversation, [...prompt, ...response.messages]);
  return { text, end, tokens: [usage.inputTokens, usage.outputTokens], pieces };
}

async function fill(order) {
  const output = Output.object({ schema: jsonSchema(order.schema) });
  const { model } = request(order, []);
  return { values: (await generateText({ model, output, prompt: order.prompt })).output };
}

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const calls = [];
  let reply;
  try {
    reply = await (order.schema ? fill(order) : say(order, calls));
  } catch (error) {
    reply = { error: { name: error.name, message: String(error.message) } };
  }
  process.stdout.write(`${JSON.stringify({ ...reply, calls })}\n`);
}
