// Operations on the local parts of Krylov vectors (definition: backends/vectors.py) and the unfolding of stored halves
// (definition: backends/mirror.py). Vectors are rows of (n, size) arrays.
//
// Sums have two stages: every thread block adds up one of a fixed number of ranges of elements, then one block per sum
// adds the ranges. The order depends on the size alone, so results are the same in every run and on every device.
//
// Kernels with a thread for every element take any number of blocks: a launch has at most 2^32 threads on AMD.

#define TILE 4
#define TURN 32
#define EACH_ELEMENT(e, size)                                                 \
    for (Index e = (Index)blockIdx.x * blockDim.x + threadIdx.x; e < (size); \
         e += (Index)gridDim.x * blockDim.x)

__device__ inline Index least(Index a, Index b) { return a < b ? a : b; }

// The sum over the threads of a block, in its first element; n_threads is a power of two.
__device__ inline void add_threads(double* values) {
    for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
    }
    __syncthreads();
}

// partial[part, i, j] = part of first_i . second_j, for one tile of rows i and j in every thread block.
extern "C" __global__ void gram(
    const double* first, const double* second, double* partial, Index m, Index k, Index size, Index n_parts
) {
    SHARED_DOUBLES(shared);
    const Index n_tiles_k = (k + TILE - 1) / TILE;
    const Index n_tiles = (m + TILE - 1) / TILE * n_tiles_k;
    const Index part = blockIdx.x / n_tiles, tile = blockIdx.x % n_tiles;
    const Index i0 = tile / n_tiles_k * TILE, j0 = tile % n_tiles_k * TILE;
    const Index begin = size * part / n_parts, end = size * (part + 1) / n_parts;
    const double* rows[TILE];
    const double* columns[TILE];
    for (int x = 0; x < TILE; x++) {  // rows beyond the last are read twice and not used
        rows[x] = first + least(i0 + x, m - 1) * size;
        columns[x] = second + least(j0 + x, k - 1) * size;
    }
    const int n_rows = (int)least(m - i0, TILE), n_columns = (int)least(k - j0, TILE);
    double total[TILE][TILE];
    for (int x = 0; x < TILE; x++)
        for (int y = 0; y < TILE; y++) total[x][y] = 0.0;
    for (Index e = begin + threadIdx.x; e < end; e += blockDim.x) {
        double b[TILE];
        for (int y = 0; y < TILE; y++) b[y] = y < n_columns ? columns[y][e] : 0.0;
        for (int x = 0; x < TILE; x++) {
            const double a = x < n_rows ? rows[x][e] : 0.0;
            for (int y = 0; y < TILE; y++) total[x][y] += a * b[y];
        }
    }
    for (int x = 0; x < TILE; x++) {
        for (int y = 0; y < TILE; y++) {
            if (x >= n_rows || y >= n_columns) continue;
            shared[threadIdx.x] = total[x][y];
            add_threads(shared);
            if (threadIdx.x == 0) partial[(part * m + i0 + x) * k + j0 + y] = shared[0];
            __syncthreads();
        }
    }
}

// out[c] = sum over parts of partial[part, c], one thread block for every c.
extern "C" __global__ void add_parts(const double* partial, double* out, Index count, Index n_parts) {
    SHARED_DOUBLES(shared);
    const Index c = blockIdx.x;
    double total = 0.0;
    for (Index part = threadIdx.x; part < n_parts; part += blockDim.x) total += partial[part * count + c];
    shared[threadIdx.x] = total;
    add_threads(shared);
    if (threadIdx.x == 0) out[c] = shared[0];
}

// Preconditioned residual of root i on one range of elements, with its sums; one thread block for (range, root).
// partial[part, i, :] = |r|^2, r . out, and out . basis_j for all j if `fused`. Every thread keeps its sums in a column
// of shared memory, as there are as many as basis vectors.
extern "C" __global__ void residuals(
    const double* basis, const double* images, const double* coefficients, const double* energies,
    const double* shifts, const double* diagonal, double least_denominator, double* out, double* partial, Index m,
    Index k, Index size, Index n_parts, int fused
) {
    SHARED_DOUBLES(shared);
    const Index part = blockIdx.x / m, i = blockIdx.x % m;
    const Index begin = size * part / n_parts, end = size * (part + 1) / n_parts;
    const Index n_sums = 2 + (fused ? k : 0);
    const double energy = energies[i];
    double* sums = shared + threadIdx.x;
    for (Index c = 0; c < n_sums; c++) sums[c * blockDim.x] = 0.0;
    for (Index e = begin + threadIdx.x; e < end; e += blockDim.x) {
        double residual = 0.0;
        for (Index j = 0; j < k; j++) {
            const double c = coefficients[i * k + j];
            residual += c * images[j * size + e] - c * energy * basis[j * size + e];
        }
        double denominator = shifts[i] - diagonal[e];
        const double magnitude = denominator < 0.0 ? -denominator : denominator;
        if (magnitude < least_denominator) denominator = denominator >= 0.0 ? least_denominator : -least_denominator;
        const double direction = residual / denominator;
        out[i * size + e] = direction;
        sums[0] += residual * residual;
        sums[blockDim.x] += residual * direction;
        if (fused)
            for (Index j = 0; j < k; j++) sums[(2 + j) * blockDim.x] += direction * basis[j * size + e];
    }
    for (Index c = 0; c < n_sums; c++) {
        add_threads(shared + c * blockDim.x);
        if (threadIdx.x == 0) partial[(part * m + i) * n_sums + c] = shared[c * blockDim.x];
    }
}

// vectors[:n] = transform (vectors[:m] - overlaps basis), every element by one thread; m doubles of shared memory each.
extern "C" __global__ void project_out(
    double* vectors, const double* basis, const double* overlaps, const double* transform, Index n, Index m, Index k,
    Index size
) {
    SHARED_DOUBLES(shared);
    double* work = shared + threadIdx.x;
    EACH_ELEMENT(e, size) {
        for (Index i = 0; i < m; i++) work[i * blockDim.x] = vectors[i * size + e];
        for (Index j = 0; j < k; j++) {
            const double value = basis[j * size + e];
            for (Index i = 0; i < m; i++) work[i * blockDim.x] -= overlaps[i * k + j] * value;
        }
        for (Index i = 0; i < n; i++) {
            double total = 0.0;
            for (Index j = 0; j < m; j++) total += transform[i * m + j] * work[j * blockDim.x];
            vectors[i * size + e] = total;
        }
    }
}

// vectors[:n] = coefficients vectors[:k], in place; k doubles of shared memory for every thread.
extern "C" __global__ void rotate(double* vectors, const double* coefficients, Index n, Index k, Index size) {
    SHARED_DOUBLES(shared);
    double* work = shared + threadIdx.x;
    EACH_ELEMENT(e, size) {
        for (Index j = 0; j < k; j++) work[j * blockDim.x] = vectors[j * size + e];
        for (Index i = 0; i < n; i++) {
            double total = 0.0;
            for (Index j = 0; j < k; j++) total += coefficients[i * k + j] * work[j * blockDim.x];
            vectors[i * size + e] = total;
        }
    }
}

// out = factor out + diagonal * vector.
extern "C" __global__ void scale_and_add(
    const double* diagonal, const double* vector, double factor, double* out, Index size
) {
    EACH_ELEMENT(e, size) out[e] = factor * out[e] + diagonal[e] * vector[e];
}

// out += factor vector.
extern "C" __global__ void add_scaled(const double* vector, double factor, double* out, Index size) {
    EACH_ELEMENT(e, size) out[e] += factor * vector[e];
}

// kept[i] = out[line[i]], and later out[line[i]] += factor kept[i].
extern "C" __global__ void keep_line(const double* out, const Index* line, double* kept, Index count) {
    EACH_ELEMENT(i, count) kept[i] = out[line[i]];
}

extern "C" __global__ void add_line(double* out, const Index* line, const double* kept, double factor, Index count) {
    EACH_ELEMENT(i, count) out[line[i]] += factor * kept[i];
}

// lowest[n] = smallest of the elements n stretch, ..., (n + 1) stretch - 1: one thread block for every stretch.
extern "C" __global__ void smallest_of_stretches(const double* values, double* lowest, Index stretch, Index size) {
    SHARED_DOUBLES(shared);
    const Index begin = (Index)blockIdx.x * stretch, end = least(begin + stretch, size);
    double smallest = values[begin];
    for (Index e = begin + threadIdx.x; e < end; e += blockDim.x)
        if (values[e] < smallest) smallest = values[e];
    shared[threadIdx.x] = smallest;
    for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half && shared[threadIdx.x + half] < shared[threadIdx.x])
            shared[threadIdx.x] = shared[threadIdx.x + half];
    }
    if (threadIdx.x == 0) lowest[blockIdx.x] = shared[0];
}

// Stretches of elements one after the other, and `beyond` for what lies behind the last element.
extern "C" __global__ void take_stretches(
    const double* values, const Index* chosen, double* out, double beyond, Index stretch, Index size
) {
    const Index begin = chosen[blockIdx.x] * stretch;
    for (Index k = threadIdx.x; k < stretch; k += blockDim.x)
        out[(Index)blockIdx.x * stretch + k] = begin + k < size ? values[begin + k] : beyond;
}

// out[positions[i]] = values[i].
extern "C" __global__ void put(const Index* positions, const double* values, double* out, Index count) {
    const Index i = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) out[positions[i]] = values[i];
}

// whole[target[row] + j] = factor stored[offset[row] + j]: one thread block for every stored row.
extern "C" __global__ void place(
    const double* stored, const Index* offset, const Index* stop, const Index* target, double factor, double* whole
) {
    const Index row = blockIdx.x;
    const double* source = stored + offset[row];
    double* out = whole + target[row];
    for (Index j = threadIdx.x; j < stop[row]; j += blockDim.x) out[j] = factor * source[j];
}

// Element j of stored row i goes to row first_row[i] + j, column column[i]: squares of TURN x TURN elements are turned
// in shared memory, so that both sides are read and written along rows.
extern "C" __global__ void turn(
    const double* stored, const Index* offset, const Index* stop, const Index* first_row, const Index* column,
    const Index* row_offset, double factor, double* whole, Index n_rows, Index n_squares
) {
    SHARED_DOUBLES(square);
    const Index i0 = blockIdx.x / n_squares * TURN, j0 = blockIdx.x % n_squares * TURN;
    const int height = (int)least(n_rows - i0, TURN);
    for (int at = threadIdx.x; at < height * TURN; at += blockDim.x) {
        const Index i = i0 + at / TURN, j = j0 + at % TURN;
        if (j < stop[i]) square[at / TURN * (TURN + 1) + at % TURN] = stored[offset[i] + j];
    }
    __syncthreads();
    for (int at = threadIdx.x; at < height * TURN; at += blockDim.x) {
        const Index i = i0 + at % height, j = j0 + at / height;
        if (j < stop[i])
            whole[row_offset[first_row[i] + j] + column[i]] = factor * square[at % height * (TURN + 1) + at / height];
    }
}

// The mirror line of a diagonal block: the last stored element of every row, or zero where vectors are antisymmetric.
extern "C" __global__ void set_line(
    const double* stored, const Index* last, const Index* target, int symmetric, double* whole, Index count
) {
    EACH_ELEMENT(i, count) whole[target[i]] = symmetric ? stored[last[i]] : 0.0;
}
