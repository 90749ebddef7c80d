/** Searches galleries that `retrieval site` wrote, in the visitor's browser: no photo leaves the device. */

export interface Options {
  /** How many results; 10 by default. */
  k?: number;
  /** Quarter turns of the photo, clockwise. */
  turn?: 0 | 1 | 2 | 3;
  /** Left, top, right, bottom of what is searched with, as shares of the turned photo. */
  box?: [number, number, number, number];
  /** Values of the metadata that results have. */
  where?: Record<string, string>;
  /** How the names of results start. */
  prefix?: string;
  /** Least share of the best similarity. */
  cut?: number;
}

export interface Hit {
  /** Place in the gallery, of this version. */
  id: number;
  /** Cosine similarity. */
  score: number;
  /** Of its content. */
  digest: string;
  /** Finds the photo in later versions, too. */
  key: string;
  /** Path below the folder that was indexed. */
  name: string;
  metadata: Record<string, string>;
  /** Addresses of its pictures; empty where there are none. */
  thumbnail: string;
  picture: string;
}

/** Best first. */
export type Hits = Hit[] & {
  milliseconds: { embed: number; search: number };
  /** Photos that the query was compared with. */
  searched: number;
  /** Ids that the teacher ranks first, where a photo of the gallery was searched with and they are known. */
  teacher: number[] | null;
};

/** Sends `complaint`, a CustomEvent with a line, and `progress`, one with the name of a file that has come. */
export interface Gallery extends EventTarget {
  readonly title: string;
  readonly count: number;
  /** The columns of the metadata with their values. */
  readonly columns: Record<string, string[]>;
  readonly model: string;
  /** Whether a search gets the part of the gallery that is near its photo alone. Such a gallery has no filters. */
  readonly partial: boolean;
  readonly complaints: string[];
  /** Resolves when everything that a search needs is here. */
  ready(): Promise<true>;
  /** Rejects with a line that says what to do: of a photo that cannot be read, of a browser that cannot. */
  search(photo: Blob, options?: Options): Promise<Hits>;
  searchItem(item: number, options?: Options): Promise<Hits>;
  /** The unit vector of a photo. */
  embed(photo: Blob, options?: Pick<Options, "turn" | "box">): Promise<Float32Array>;
  item(item: number): Promise<Hit>;
  find(key: string): Promise<number | null>;
  close(): void;
}

/** Opens the folder that `retrieval site` wrote, wherever it is served. */
export function open(url: string | URL): Promise<Gallery>;
